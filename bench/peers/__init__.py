"""The peers: implementations that are timed side by side, on the same weights and inputs."""
