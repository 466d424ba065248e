"""The VM as the laptop deals with it: spoken with, sent to, followed, pulled from."""
