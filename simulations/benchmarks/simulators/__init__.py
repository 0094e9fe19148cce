"""What is timed by `consilium-sim bench simulation`: one task, carried out by every tool in a process of its own.

Each module here is started with `python -m`, prints one line of JSON (`common_task.Measured`) last, and imports
nothing of this project but `common_task`, which needs NumPy and torch alone; so it also runs in a peer's environment.
"""
