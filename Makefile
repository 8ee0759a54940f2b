# Thin on purpose: every command lives in xtask/ and sets up what it needs.
.PHONY: demo test soak bench bench-ring setup image

demo test soak bench bench-ring setup image:
	@cargo xtask $@
