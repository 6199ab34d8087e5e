"""Is the model good, is it better than what a simpler one gives, does it overfit, may it ship."""
