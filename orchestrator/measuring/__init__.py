"""Which machine is worth its price: five workloads measured on each, and what follows."""
