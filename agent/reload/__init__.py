"""The reload of one service on this host: steps, guard, the class `Reload` that carries them out, and recovery."""
