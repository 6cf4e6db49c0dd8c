{{/* The chart is installed once in a cluster, as its CRDs and policies are: names are fixed, so that
     documents, runbooks and alerts can say them. */}}

{{- define "shadowfault.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* Labels of an object: (dict "root" $ "component" "api") */}}
{{- define "shadowfault.labels" -}}
{{- with .root.Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{ include "shadowfault.selector" . }}
{{- end -}}

{{/* What never changes, for selectors. */}}
{{- define "shadowfault.selector" -}}
app.kubernetes.io/name: shadowfault
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Pods run as a number, with nothing they could gain: the restricted pod security standard. */}}
{{- define "shadowfault.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . | default 10001 }}
runAsGroup: {{ . | default 10001 }}
fsGroup: {{ . | default 10001 }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "shadowfault.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Of a container of ours: image and the like. */}}
{{- define "shadowfault.container" -}}
image: {{ include "shadowfault.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- include "shadowfault.containerSecurity" . | nindent 2 }}
{{- end -}}

{{/* Where a pod runs: (dict "root" $ "of" .Values.api) */}}
{{- define "shadowfault.placement" -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The documents of a file under files/, as a list: (dict "root" $ "file" "files/rbac.yaml") */}}
{{- define "shadowfault.documents" -}}
{{- $documents := list -}}
{{- range splitList "\n---\n" (.root.Files.Get .file) -}}
{{- with fromYaml . -}}
{{- $documents = append $documents . -}}
{{- end -}}
{{- end -}}
{{- dict "items" $documents | toYaml -}}
{{- end -}}
