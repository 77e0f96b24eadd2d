"""The rooms of the policy: pure functions from what is known to what is done."""
