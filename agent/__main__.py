"""``python -m agent`` is ``svcagent``."""

from agent.cli import main

if __name__ == "__main__":
    main()
