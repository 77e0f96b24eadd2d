"""Plans a factory: orders, deliveries, racks, power, money, what it makes, and the race. Never imports JAX."""
