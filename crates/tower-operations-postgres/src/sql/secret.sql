SELECT secret FROM {versions} WHERE version = 3
