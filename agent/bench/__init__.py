"""What this device can do, measured on it: which setup of a model is fastest, and how many cameras it holds."""
