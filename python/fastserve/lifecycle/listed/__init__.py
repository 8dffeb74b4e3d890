"""Files that list models: TensorFlow Serving's model_config_list, OpenVINO Model Server's config.json, and our own YAML."""
