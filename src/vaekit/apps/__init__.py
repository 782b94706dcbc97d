"""What is made of a trained model, and bridges to other libraries. Each module is imported by its own name: some need an extra."""
