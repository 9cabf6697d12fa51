"""What the machine offers: clock, disk, memory, metrics."""
