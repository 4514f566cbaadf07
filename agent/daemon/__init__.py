"""``svcagent run``: when to do what. What is done is done by the rooms below, or by a verb in a process of its own."""
