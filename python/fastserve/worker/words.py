"""Parameters by which the control plane tells a worker more than a load says; models do not get to see them."""

CONFIG_PARAMETER = "fastserve.model_config"  # Triton's model configuration: JSON
REASON_PARAMETER = "fastserve.chosen_because"  # why this backend runs the model
