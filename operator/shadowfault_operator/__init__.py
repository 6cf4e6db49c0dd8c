"""The ChaosExperiment operator: injects the chaos environment into a Deployment and takes it out again."""
