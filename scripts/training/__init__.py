"""What `scripts/train` is made of: photos, rendered scenes, the network, the loop, the bundle."""
