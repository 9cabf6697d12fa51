"""Pure rules: no I/O, no clock, no logging. What they need is passed in."""
