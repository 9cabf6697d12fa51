"""What the doctor tries in a process of its own, because libraries and drivers may hang or crash in it."""
