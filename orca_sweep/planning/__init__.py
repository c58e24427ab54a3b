"""What a sweep will cost, what it runs next, and whether a recorded trial can be reproduced."""
