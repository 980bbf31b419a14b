"""The suite's tests of itself draw as the properties do."""

from properties.verdict import profiles

profiles.register()
