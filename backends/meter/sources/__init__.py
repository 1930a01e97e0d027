"""Where energy is read: NVML, DCGM, RAPL or the simulator, each as microjoules per device."""
