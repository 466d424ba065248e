"""What machines and runs cost: sessions, budgets, and what was paid for."""
