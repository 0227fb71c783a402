"""Trained models as SavedModels: the servables, their versions, and the check before they count."""
