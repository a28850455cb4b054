"""The build: mix file -> plan -> datatrove steps -> shards. The command line lives here too."""
