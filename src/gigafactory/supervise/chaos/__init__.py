"""Faults put into real runs: the plan, the injection, what each cost, the verdicts."""
