"""srk in other libraries: schedulers and samplers with their interfaces."""
