"""The VM's half: agent, supervisor and store. Sent over SSH as it is; standard library only, Python 3.8+."""
