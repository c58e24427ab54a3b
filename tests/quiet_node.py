"""``ray start`` without the server of Ray's client, which no test needs, and which no option of the command leaves out."""

from ray.scripts import scripts

if __name__ == "__main__":
    scripts.get_ray_client_dependency_error = lambda: ImportError("not wanted")
    scripts.main()
