"""``svcagent run``: decides when to do what. The work is done by other packages, or by a command in a child process."""
