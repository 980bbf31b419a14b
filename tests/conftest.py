"""The suite's tests of itself draw as the properties do."""

from properties import profiles

profiles.register()
