"""Pictures of the real application: scenes, how they are drawn, and the tests that compare them."""
