"""What the laptop keeps of runs: the ledger, the mirrors, the shelf."""
