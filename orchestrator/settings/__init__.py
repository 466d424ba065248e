"""What the user has said: train.yaml and remotes.yaml."""
