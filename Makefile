# Thin on purpose: every command lives in xtask/ and sets up what it needs.
.PHONY: demo test bench setup

demo test bench setup:
	@cargo xtask $@
