{{/* Names are the same in every release: the driver, its kinds and its leases exist once in a cluster. */}}

{{/* `helm upgrade --reuse-values` brings the values of the former chart, without the keys that came later. Those are
     metrics.bindAddress, node.maxSpinMicroseconds and kubevirt.webhook: where one is not there, its default holds. */}}
{{- define "holdfast.bindAddress" -}}
{{- .Values.metrics.bindAddress | default "[::]" }}
{{- end }}

{{/* Labels that selectors use. They can never change: selectors of workloads are immutable. (root, component) */}}
{{- define "holdfast.selector" -}}
app.kubernetes.io/name: holdfast
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of every object. (root, component) */}}
{{- define "holdfast.labels" -}}
{{ include "holdfast.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: holdfast
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image: a digest beats a tag, the global registry beats the image's own. (root, image) */}}
{{- define "holdfast.image" -}}
{{- $registry := .root.Values.global.imageRegistry | default .image.registry | trimSuffix "/" -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .image.repository -}}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The image lines of a container. (root, image) */}}
{{- define "holdfast.imageLines" -}}
image: {{ include "holdfast.image" . }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end }}

{{/* What a container may do that needs nothing. */}}
{{- define "holdfast.noPrivileges" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "holdfast.pullSecrets" -}}
{{- with .Values.imagePullSecrets -}}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The helper that asks the driver over its CSI socket whether it is well. (root, port) */}}
{{- define "holdfast.livenessContainer" -}}
- name: liveness
  {{- include "holdfast.imageLines" (dict "root" .root "image" .root.Values.sidecars.livenessProbe.image) | nindent 2 }}
  args:
    - --csi-address=/csi/csi.sock
    - --probe-timeout=5s
    - --http-endpoint=:{{ .port }}
    {{- with .root.Values.sidecars.livenessProbe.extraArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - {name: liveness, containerPort: {{ .port }}}
  securityContext:
    {{- include "holdfast.noPrivileges" . | nindent 4 }}
  resources:
    {{- toYaml .root.Values.sidecars.livenessProbe.resources | nindent 4 }}
  volumeMounts:
    - {name: csi, mountPath: /csi}
{{- end }}
