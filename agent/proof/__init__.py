"""How a new model proves itself before it answers: in a process of its own, which may crash or hang as it likes."""
