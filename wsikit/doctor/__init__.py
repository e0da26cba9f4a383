"""Before the night's run: is the installation sound, which slides of an archive will fail and why, and how long will the rest take?"""
