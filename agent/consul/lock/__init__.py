"""The lock over a Consul session: single or semaphore, with a queue in the order of arrival."""
