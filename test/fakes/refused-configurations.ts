const runtime = (key: string): string => `version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.a]
${key}
`;

/** Configurations that every supported containerd refuses to load; the fake one and the real ones are asked about each. */
export const refusedConfigurations: Record<string, string> = {
  "no TOML": "version = 2\n[a\n",
  "a table twice": "version = 2\n[a]\n[a]\n",
  "a version that none knows": "version = 9\n",
  "a version that is a text": 'version = "2"\n',
  "imports that are a text": 'version = 2\nimports = "x"\n',
  "a root that is a number": "version = 2\nroot = 3\n",
  "plugins that are a number": "version = 2\nplugins = 3\n",
  "a proxy plugin's address that is a number": "version = 2\n[proxy_plugins.a]\naddress = 3\n",
  "a runtime's type that is a number": runtime("runtime_type = 3"),
  "a runtime's path that is a number": runtime("runtime_path = 3"),
  "a runtime's annotations that are a text": runtime('pod_annotations = "x"'),
  "a runtime's devices that are a text": runtime('privileged_without_host_devices = "x"'),
  "a runtime's snapshotter that is a number": runtime("snapshotter = 3"),
  "a runtime's options that are a text": runtime('options = "x"'),
};
