"""Many runs of one category whose parameters are looked for."""
