"""The VM's half: agent, supervisor, store. Sent as it is; standard library only, Python 3.8+."""
