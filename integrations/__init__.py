"""Models, data sets and frameworks that cycledistill works with; installed as ``cycledistill.integrations``."""
