{{- define "reconciler.labels" -}}
app.kubernetes.io/name: containerd-reconciler
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "reconciler.selector" -}}
app.kubernetes.io/name: containerd-reconciler
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "reconciler.name" -}}
{{- if contains "containerd-reconciler" .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-containerd-reconciler" .Release.Name | trunc 52 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- /* The places of a node's containerd, as YAML: state, root, address, mount. */ -}}
{{- define "reconciler.places" -}}
{{- $known := dict
  "" (dict "state" "/run/containerd" "root" "/var/lib/containerd" "address" "/run/containerd/containerd.sock")
  "k3s" (dict "state" "/run/k3s/containerd" "root" "/var/lib/rancher/k3s/agent/containerd" "address" "/run/k3s/containerd/containerd.sock")
  "rke2" (dict "state" "/run/k3s/containerd" "root" "/var/lib/rancher/rke2/agent/containerd" "address" "/run/k3s/containerd/containerd.sock")
  "microk8s" (dict "state" "/var/snap/microk8s/common/run/containerd" "root" "/var/snap/microk8s/common/var/lib/containerd" "address" "/var/snap/microk8s/common/run/containerd.sock" "mount" "/var/snap/microk8s/common/run")
-}}
{{- $usual := get $known .Values.distribution -}}
{{- $own := .Values.containerd -}}
{{- $state := default $usual.state $own.state -}}
state: {{ $state }}
root: {{ default $usual.root $own.root }}
address: {{ default (ternary $usual.address (printf "%s/containerd.sock" $state) (empty $own.state)) $own.address }}
mount: {{ default (ternary (default $state $usual.mount) $state (empty $own.state)) $own.mount }}
{{- end }}
