"""Recipes: functions that return a whole run. See `vaekit.recipes.core`."""
