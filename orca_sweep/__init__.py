"""orca-sweep: ablation sweeps of cross-modal fine-tuning with ORCA on Ray Tune."""

__version__ = "0.1.0"
