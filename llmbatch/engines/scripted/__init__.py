"""An engine without a model, for rehearsals and tests: it answers by a script, and fails and dies when told to."""
