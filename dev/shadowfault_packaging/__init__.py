"""What a release is made of besides code: the chart's README."""
