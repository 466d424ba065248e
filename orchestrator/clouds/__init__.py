"""Machines that are rented: from whom, how they are started and stopped, and their prices."""
