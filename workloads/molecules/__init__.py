"""Properties of molecules from their graphs: ogbg-molpcba."""
