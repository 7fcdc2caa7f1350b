"""How faithful and how editable a learnt word is: samples, the judge in CLIP's space, tables and plots."""
